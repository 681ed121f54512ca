"""The restore drill: an old copy of the bus's files is put back while its partners have gone on."""
