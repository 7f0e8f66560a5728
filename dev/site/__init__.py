"""What builds the documentation's site, besides mkdocs: see mkdocs.yml and docs/development.md."""
