from ._branches import Sample as Sample
from ._branches import named_branches as named_branches
from ._branches import read_branches as read_branches
from ._meta import measure_meta as measure_meta
from ._sites import canonical as canonical
from ._sites import read_blueprint as read_blueprint
from ._sites import rms_of as rms_of
