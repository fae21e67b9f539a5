"""The little we put on top of aiokafka."""
