from ._storages import AllocatorPeak as AllocatorPeak
from ._storages import StorageTracker as StorageTracker
from ._storages import key as key
from ._storages import optimizer_tensors as optimizer_tensors
from ._storages import storage_bytes as storage_bytes
from ._storages import tensors_in as tensors_in
from ._training_memory import TrainingMemory as TrainingMemory
