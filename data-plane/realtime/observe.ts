/** PURE. What events say of how much there is in a conversation. */

import { type EventHead, fieldsOf, mediaOf, outputLimitOf, parseEvent } from "./events.ts";
import type { Conversation } from "./tally.ts";

export function observeClient(conversation: Conversation, { type, audioBytes }: EventHead, frame: Buffer): void {
  switch (type) {
    case "input_audio_buffer.append":
      return conversation.appended(audioBytes);
    case "input_audio_buffer.clear":
      return conversation.cleared();
    case "conversation.item.create":
      return conversation.added(mediaOf(frame));
  }
}

export function observeServer(conversation: Conversation, type: string, frame: Buffer): void {
  switch (type) {
    case "session.created":
    case "session.updated": {
      const session = fieldsOf(parseEvent(frame)["session"]);
      conversation.session(session, frame.length);
      conversation.outputLimit = outputLimitOf(session);
      return;
    }
    case "input_audio_buffer.speech_started":
      return conversation.speechStarted(parseEvent(frame)["audio_start_ms"]);
    case "input_audio_buffer.speech_stopped":
      return conversation.speechStopped(parseEvent(frame)["audio_end_ms"]);
    case "input_audio_buffer.committed":
      return conversation.committed();
  }
}
