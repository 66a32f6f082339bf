from ._open import open_store as open_store
from ._open import require_storage as require_storage
from ._store import NoStore as NoStore
from ._store import OptunaStore as OptunaStore
from ._store import Store as Store
