// Loaded before a part (`node --import`): an IPC message {type: "clock", offsetMs} sets its wall clock so far off, as an
// administrator or a wrong time server does. Date is what every wall clock in the process reads; the steady clock
// (`performance.now`, timers) goes on, as it does on a real machine. The database keeps its own clock.
const RealDate = Date;
let offsetMs = 0;

class JumpedDate extends RealDate {
  constructor(...args) {
    if (args.length === 0) super(RealDate.now() + offsetMs);
    else super(...args);
  }
  static now() {
    return RealDate.now() + offsetMs;
  }
}
globalThis.Date = new Proxy(JumpedDate, { apply: () => new JumpedDate().toString() });

process.on("message", (message) => {
  if (message?.type !== "clock") return;
  offsetMs = message.offsetMs;
  process.send?.({ type: "clock", offsetMs });
});
// Listening must not keep an otherwise finished process alive.
process.channel?.unref();
