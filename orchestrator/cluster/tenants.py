"""Workers without processes of their own, asked as if they had them; see ``PolicyWorker.admit``."""

from dataclasses import dataclass
from typing import Any


class Tenant:
    """A worker of a role in the process of another's, whose methods are called as an actor's."""

    def __init__(self, actor: Any, role: str) -> None:
        """
        Args:
            actor: A policy rank that has admitted it.
        """
        self._actor, self._role = actor, role

    def __getattr__(self, method: str) -> "TenantMethod":
        return TenantMethod(self._actor, self._role, method)


@dataclass(frozen=True, slots=True)
class TenantMethod:
    """One of its methods."""

    actor: Any
    role: str
    method: str

    def remote(self, *args: Any, **options: Any) -> Any:
        """Call it; return what the answer comes under."""
        return self.actor.of_tenant.remote(self.role, self.method, *args, **options)
