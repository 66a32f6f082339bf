from ._load import LoadedTask as LoadedTask
from ._load import load_task as load_task
