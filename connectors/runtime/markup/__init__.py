"""XML and SOAP, from outside and to outside, within limits."""
