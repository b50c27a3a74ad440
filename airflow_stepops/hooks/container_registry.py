"""The Airflow connection of a container registry: its address, and a login."""

from __future__ import annotations

from airflow.sdk import BaseHook

from airflow_stepops.errors import ImageError


class ContainerRegistryHook(BaseHook):
    """Reads a ``container_registry`` connection, and tests it from Airflow's form.

    :param conn_id: id of the connection.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "container_registry_default"
    conn_type = "container_registry"
    hook_name = "Container registry"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def login(self) -> tuple[str, str] | None:
        """Return user name and password, ``None`` when the connection has neither."""
        connection = self.get_connection(self.conn_id)
        if not connection.login and not connection.password:
            return None
        return connection.login or "", connection.password or ""

    def test_connection(self) -> tuple[bool, str]:
        """Log in, and say whether the registry let us."""
        from airflow_stepops.images.registry.client import RegistryClient

        host = self.get_connection(self.conn_id).host
        if not host:
            return False, "The field Registry is empty: give a host, such as registry.example.com:5000."
        try:
            RegistryClient(f"{host}/stepops", credentials=self.login, push=False).head_manifest("latest")
        except ImageError as error:
            return False, str(error)
        return True, f"{host} accepts the login."
