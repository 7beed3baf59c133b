"""Serve PVs over Channel Access, and be gone for a while when asked."""

from __future__ import annotations

from typing import Any

from caproto.asyncio.server import Context


class InterruptibleServer(Context):
    """Drop every client and answer nobody while `away`."""

    away = False

    def leave(self) -> None:
        self.away = True
        for circuit in list(self.circuits):
            circuit.client.close()

    def come_back(self) -> None:
        self.away = False

    async def tcp_handler(self, client: Any, addr: Any) -> None:
        if self.away:
            client.close()
            return
        await super().tcp_handler(client, addr)

    async def _broadcaster_queue_iteration(self, addr: Any, commands: Any) -> None:
        # Searches that are not answered are repeated by the clients until the server is back.
        if not self.away:
            await super()._broadcaster_queue_iteration(addr, commands)
