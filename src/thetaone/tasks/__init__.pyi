from ._load import LoadedTask as LoadedTask
from ._load import load_task as load_task
from ._source_files import load_file as load_file
