"""An adversary that speaks raw bytes, and is judged by raw bytes: against our server, an archive process, and our client."""
