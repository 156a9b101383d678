"""The Ray that a command starts for itself."""

from urllib.parse import urlsplit

import psutil


def test_the_dashboard_of_a_local_ray_listens_on_the_loopback_address_only(local_ray):
    address = urlsplit(f"http://{local_ray.worker._global_node.webui_url}")
    found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert [each.laddr.ip for each in found if each.laddr.port == address.port] == ["127.0.0.1"]
