"""What is wrong with a configuration although each value by itself is allowed."""

from __future__ import annotations

from vx.config.mistakes import shown
from vx.config.schema import Config


def find_conflicts(config: Config) -> list[str]:
    """A line for each."""
    problems: list[str] = []
    if not config.listen:
        problems.append("listen: [] is not allowed; allowed is at least one address")
    # Port 0 is another port each time.
    addresses = [
        str(address) if address.port or address.unix_path else f"{address} {index}"
        for index, address in enumerate(config.listen)
    ]
    problems += _repeated("listen[{}]", addresses)
    if not config.insecure and not (config.tls and config.user):
        missing = " and ".join(["TLS"] * (not config.tls) + ["users"] * (not config.user))
        problems += [
            f"listen[{index}]: {shown(str(address))} can be reached from other machines, and without {missing} "
            "anybody there may take any recording; allowed is 127.0.0.1, [::1], localhost or unix:///PATH, "
            "or set insecure = true"
            for index, address in enumerate(config.listen)
            if not address.is_local
        ]
    metrics = config.metrics.listen
    if metrics is not None and not metrics.is_local and not config.insecure:
        problems.append(
            f"metrics.listen: {shown(str(metrics))} can be reached from other machines, and nobody is asked there who "
            "he is; allowed is 127.0.0.1, [::1], localhost or unix:///PATH, or set insecure = true"
        )
    if config.tls and config.tls.client_ca and not config.user:
        problems.append("tls.client_ca: the names in clients' certificates are users', and there is no [[user]]")
    problems += _repeated("role[{}].name", [role.name for role in config.role])
    problems += _repeated("user[{}].name", [user.name for user in config.user])
    roles = [role.name for role in config.role]
    for index, user in enumerate(config.user):
        problems += [
            f"user[{index}].roles[{place}]: {shown(name)} is no [[role]]; allowed are {', '.join(roles) or 'none'}"
            for place, name in enumerate(user.roles)
            if name not in roles
        ]
        if not user.password_hash and not (config.tls and config.tls.client_ca):
            problems.append(f"user[{index}].password_hash: is missing, and without tls.client_ca nothing else lets in")
    problems += _repeated("camera[{}].access_point", [camera.access_point for camera in config.camera])
    problems += _repeated("agent[{}].access_point", [agent.access_point for agent in config.agent])
    for index, camera in enumerate(config.camera):
        storages = [archive.storage for archive in camera.archive]
        problems += _repeated(f"camera[{index}].archive[{{}}].storage", storages)
    return problems


def _repeated(path: str, values: list[str]) -> list[str]:
    first: dict[str, int] = {}
    return [
        f"{path.format(index)}: {shown(value)} is there twice; {path.format(first[value])} has it already"
        for index, value in enumerate(values)
        if first.setdefault(value, index) != index
    ]
