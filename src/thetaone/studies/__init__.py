"""The only place where rooms meet: whole jobs.

A study calls one room after another, hands their records on, and decides nothing that a room
could decide.

| file | joins | job |
|---|---|---|
| ``_invariance`` | tasks, parametrization | the coordinate check of a task by name |
| ``_sweep`` | tasks, parametrization, sweeps | best learning rate of every width, and its drift |
| ``request`` | tasks, parametrization | what is asked: caller, task and defaults, settled |
| ``target`` | sweeps, parametrization, rematerialization | memory, recipe, training, level |
| ``_tune`` | sweep | options of the optimizer, tuned with the rate |
| ``_transfer``, ``_job`` | sweep, target, laws, report | tune small, train large |
| ``_memory_frontier`` | tasks, rematerialization | what training a task's model takes in memory |
| ``_estimator_bakeoff`` | estimators | every estimator on problems whose gradient is known |
| ``cartpole``, ``_policy`` | estimators, a task | the policy task, and its training |
| ``_environment`` | | what a result was measured on |

``cli`` calls one study a command. Must not import: ``integrations``, its sibling.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
