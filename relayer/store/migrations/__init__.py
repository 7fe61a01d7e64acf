"""One script per schema version, NNNN_what.sql; never edited once released."""
