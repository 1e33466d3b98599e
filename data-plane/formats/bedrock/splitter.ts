/** PURE. The binary event streams of Bedrock as frames of the pipeline. */

import type { OnFrame, SseEvent } from "../../sse.ts";
import type { FrameSplitter } from "../format.ts";
import { EventFrameError, EventStreamSplitter, parseEventFrame } from "./event_stream.ts";

export function eventStreamSplitter(): FrameSplitter {
  const splitter = new EventStreamSplitter();
  return {
    push: (chunk: Buffer, onFrame: OnFrame) => splitter.push(chunk, onFrame),
    finish() {
      if (splitter.remainder().length > 0)
        throw new EventFrameError("event_frame_corrupt", "an event stream ends within a frame");
    },
    parse: (buffer: Buffer, start: number, end: number, out: SseEvent) => parseEventFrame(buffer, start, end, out),
  };
}
