from ._background import Answer as Answer
from ._disk_cost import disk_cost as disk_cost
from ._disk_tier import DiskTier as DiskTier
from ._offload import Boundary as Boundary
from ._offload import Recover as Recover
from ._offload import boundary_of as boundary_of
from ._offload import ticket_for as ticket_for
