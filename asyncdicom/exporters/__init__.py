"""Exporters for the events of :mod:`asyncdicom.instrument`, each with an extra of its own."""
