from ._measure import Subject as Subject
from ._profile import measured_chain as measured_chain
from ._profile import note_subject as note_subject
from ._profile import profile as profile
from ._validity import require_current as require_current
from ._validity import require_same_blocks as require_same_blocks
