from ._course import CourseAnswer as CourseAnswer
from ._course import CourseVerdict as CourseVerdict
from ._fits import Optimum as Optimum
from ._fits import PowerLaw as PowerLaw
from ._laws import LawResult as LawResult
from ._laws import MeasuredLaws as MeasuredLaws
from ._laws import Relation as Relation
from ._laws import laws_table as laws_table
