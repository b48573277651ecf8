"""From run folders to laws: tables, fits, intervals, predictions. No torch, no ray."""
