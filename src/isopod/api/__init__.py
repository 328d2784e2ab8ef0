"""The control API over HTTP: one file per resource; no decisions, those are control's."""
