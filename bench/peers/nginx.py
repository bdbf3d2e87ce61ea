"""nginx over HTTPS (TLS 1.3, the same suite as Towline's) and curl."""

from __future__ import annotations

import os

from bench.machine import version_of
from bench.peers.base import HOST, Peer, free_port, wait_for_port, which, write

SUITE = "TLS_AES_256_GCM_SHA384"  # what Python 3.11 chooses for Towline; it has no say in TLS 1.3's suites


class Nginx(Peer):
    """Serves the run's `source` folder."""

    name = "nginx + curl"
    programs = ("nginx", "curl", "openssl")

    def start(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        key, certificate = os.path.join(self.folder, "key.pem"), os.path.join(self.folder, "certificate.pem")
        self.certificate = certificate
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                "2", "-subj", "/CN=peer", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", key, "-out",
                certificate]  # fmt: skip
        self.bench.processes.run(argv)
        self.port = free_port()
        config = write(os.path.join(self.folder, "nginx.conf"), self._configuration(key, certificate))
        nginx = which("nginx") or "nginx"
        argv = [nginx, "-p", self.folder, "-c", config, "-e", os.path.join(self.folder, "errors.log")]
        self._nginx = self.bench.processes.start(argv)
        self.pid = self._nginx.pid
        wait_for_port(self.port, self._nginx)

    def stop(self) -> None:
        self.bench.processes.stop(self._nginx)

    def version(self) -> str:
        return f"{version_of([which('nginx') or 'nginx', '-v'])}; {version_of(['curl', '--version'])[:12]}"

    def get(self, path: str, target: str) -> list[str]:
        """curl's command for a file below `source`."""
        return ["curl", "-sS", "--fail", "--cacert", self.certificate, "--tls13-ciphers", SUITE, "-o", target,
                f"https://{HOST}:{self.port}/{path}"]  # fmt: skip

    def _configuration(self, key: str, certificate: str) -> str:
        user = "user root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"{name}_temp_path {self.folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"{user}daemon off;\nworker_processes auto;\npid {self.folder}/nginx.pid;\nerror_log /dev/null crit;\n"
            "events { worker_connections 2048; }\n"
            f"http {{\n{temporary}access_log off;\nsendfile on;\ntcp_nopush on;\n"
            f"server {{ listen {HOST}:{self.port} ssl backlog=1024;\nssl_certificate {certificate};\n"
            f"ssl_certificate_key {key};\nssl_protocols TLSv1.3;\nssl_conf_command Ciphersuites {SUITE};\n"
            f"ssl_buffer_size 16k;\nroot {self.bench.path('source')};\n}}\n}}\n"
        )
