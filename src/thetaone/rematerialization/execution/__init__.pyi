from ._rematerialize import rematerialize as rematerialize
