"""Reading, editing and running .tflite flatbuffers."""
