"""From runs to laws: the solver, the fits, their doubt, backtests, the ensemble, predictions, and what to run next."""
