"""The network: attention under the prefix mask, the image encoder, the text decoder, GIT."""
