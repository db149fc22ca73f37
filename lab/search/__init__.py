"""Search over settings: designs, Optuna studies, the order of jobs and the plan of a sweep."""
