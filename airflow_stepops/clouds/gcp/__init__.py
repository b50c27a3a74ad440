"""Google Cloud: artifacts in Cloud Storage, images in Artifact Registry, jobs on Vertex AI."""
