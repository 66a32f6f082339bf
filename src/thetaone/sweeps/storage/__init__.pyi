from ._open import open_store as open_store
from ._store import NoStore as NoStore
from ._store import OptunaStore as OptunaStore
from ._store import Store as Store
