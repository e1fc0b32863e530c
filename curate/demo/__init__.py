"""The bundled demo: a generated mini-web whose every defect is known, served on this machine."""
