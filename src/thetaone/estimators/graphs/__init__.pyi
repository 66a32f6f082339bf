from ._graph_expectation import Graph as Graph
from ._graph_expectation import graph_expectation as graph_expectation
