from ._diagnose import diagnose as diagnose
