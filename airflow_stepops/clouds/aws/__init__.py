"""Amazon: artifacts in S3, images in ECR, jobs on SageMaker."""
