"""Mathematics of margin accounts and contract sizes, without a venue: state in, state out."""
