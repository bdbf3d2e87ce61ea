"""OpenSSH: an own sshd on a high port of loopback with own keys and an own configuration."""

from __future__ import annotations

import getpass
import os

from bench.machine import version_of
from bench.peers.base import HOST, Peer, free_port, wait_for_port, which, write

CIPHER = "aes128-gcm@openssh.com"  # its fastest here


class OpenSSH(Peer):
    """`options` are the client's, for ssh and scp alike."""

    name = "openssh"
    programs = ("sshd", "ssh", "scp", "ssh-keygen")

    def start(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's own rule: its empty folder must be there
        for key in ("host", "client"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._at(key)]
            self.bench.processes.run(argv)
        with open(self._at("client.pub")) as file:
            write(self._at("authorized_keys"), file.read())
        self.port = free_port()
        write(self._at("sshd_config"), self._server_configuration())
        with open(self._at("host.pub")) as file:
            write(self._at("known_hosts"), f"[{HOST}]:{self.port} {file.read()}")
        write(self._at("ssh_config"), self._client_configuration())
        self._sshd = self.bench.processes.start([which("sshd") or "sshd", "-D", "-f", self._at("sshd_config")])
        self.pid = self._sshd.pid
        wait_for_port(self.port, self._sshd)

    def stop(self) -> None:
        self.bench.processes.stop(self._sshd)

    def version(self) -> str:
        return version_of(["ssh", "-V"])

    def ssh(self, *arguments: str, config: str = "ssh_config") -> list[str]:
        """`ssh` with our configuration; the host's name is `peer`."""
        return ["ssh", "-F", self._at(config), *arguments]

    def scp(self, *arguments: str) -> list[str]:
        return ["scp", "-q", "-F", self._at("ssh_config"), *arguments]

    def shared(self) -> str:
        """The name of a configuration in which all clients share one connection (ControlMaster)."""
        control = f"ControlPath {self._at('control')}\nControlMaster auto\nControlPersist yes\n"
        write(self._at("shared_config"), self._client_configuration() + control)
        return "shared_config"

    def _at(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _server_configuration(self) -> str:
        return (
            f"Port {self.port}\nListenAddress {HOST}\nHostKey {self._at('host')}\n"
            f"AuthorizedKeysFile {self._at('authorized_keys')}\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
            f"Ciphers {CIPHER}\nMaxStartups 200\nMaxSessions 200\nPrintMotd no\nLogLevel QUIET\n"
            "SetEnv SHLVL=2\n"  # else bash takes it for a login and reads the user's .bashrc: 100 ms and more
        )

    def _client_configuration(self) -> str:
        return (
            f"Host peer\nHostName {HOST}\nPort {self.port}\nUser {getpass.getuser()}\nIdentitiesOnly yes\n"
            f"IdentityFile {self._at('client')}\nUserKnownHostsFile {self._at('known_hosts')}\n"
            f"GlobalKnownHostsFile none\nStrictHostKeyChecking yes\nCiphers {CIPHER}\nCompression no\n"
            "LogLevel ERROR\nBatchMode yes\nIdentityAgent none\n"
        )
