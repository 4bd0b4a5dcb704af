"""What makes an offline run this run: its stores, and the tables that were made of them beforehand."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import REFERENCE_TABLE
from orchestrator.data.side_tables import SideTable
from orchestrator.data.stores import OfflineData
from orchestrator.run.identity import Identity, run_identity

Tables = Mapping[str, Mapping[Path, SideTable]]
"""Side tables by name, and by the folder of their store."""


def offline_identity(config: TrainConfig, data: OfflineData, tables: Tables) -> Identity:
    """What ``run_identity`` says of a run on stores.

    Args:
        tables: What the run learns from besides; a difference is told by the part of their fingerprint it is in. The
            reference's is left out: model, data and options tell all of it.
    """
    facts = {
        f"{name}.{part}": value
        for name, by_store in tables.items()
        if name != REFERENCE_TABLE
        for part, value in by_store[data.train.folder].fingerprint.parts().items()
    }
    apart = None if data.held_out_store is data.train else data.held_out_store.manifest.fingerprint
    return run_identity(config, rows=data.train.manifest.fingerprint, held_out=apart, facts=facts)
