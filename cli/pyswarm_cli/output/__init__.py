"""How results are shown: tables, JSON, Go-style templates, times and sizes in words. Pure."""
