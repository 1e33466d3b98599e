/** Every limit of realtime sessions. */

export interface RealtimeLimits {
  /** Sessions of this process at a time, those whose upstream is still being called included. */
  readonly sessionsMax: number;
  /** One frame, of either side. OpenAI takes 15 MiB of audio in one event. */
  readonly frameBytesMax: number;
  /** When so much waits for one side to take it, the other side is not read; one more frame may come. */
  readonly bufferBytesMax: number;
  readonly sessionMsMax: number;
  /** Without a frame of either side. */
  readonly idleMs: number;
  /** Without a frame of the upstream while a response is being made. */
  readonly turnIdleMs: number;
  /** For a `response.create` to be taken up by the upstream. */
  readonly pendingMs: number;
  /** A cancelled response has this long to say what it used; then that is estimated. */
  readonly cancelMs: number;
  /** When the node stops, what is being said may be finished within this. */
  readonly drainMs: number;
  /** A side that takes nothing for so long is cut off. */
  readonly stallMs: number;
  readonly pingMs: number;
  /** A side that answers no ping for so long is gone. */
  readonly silenceMs: number;
}

export const REALTIME_LIMITS: RealtimeLimits = {
  sessionsMax: 1_000,
  frameBytesMax: 16 * 1024 * 1024,
  bufferBytesMax: 1024 * 1024,
  sessionMsMax: 3_600_000,
  idleMs: 900_000,
  turnIdleMs: 120_000,
  pendingMs: 30_000,
  cancelMs: 5_000,
  drainMs: 10_000,
  stallMs: 120_000,
  pingMs: 20_000,
  silenceMs: 60_000,
};

/** Responses of a session under way at a time: one of the conversation, and those out of band. */
export const TURNS_MAX = 16;
/** The other side has this long to answer a close frame. */
export const CLOSE_MS = 2_000;

/** Close codes of RFC 6455, and what they say here. */
export const CloseCode = {
  NORMAL: 1000,
  /** The node stops, or the session is as old as it may get: begin another. */
  GOING_AWAY: 1001,
  /** No Credits, or the access key or its VE is no more. */
  POLICY: 1008,
  /** The upstream broke off. */
  UPSTREAM: 1011,
  /** The target is no more: another session may get another one. */
  RESTART: 1012,
  /** Nobody said anything for too long. */
  IDLE: 4408,
} as const;
