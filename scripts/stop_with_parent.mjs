// Loaded before a part (`node --import`): when the process that started it is gone, however it went, the part stops as it
// would on SIGTERM. Only direct children: a worker process follows its own part.
if (process.connected && process.env.TOKENBILL_PARENT === String(process.ppid)) {
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
  // Watching must not keep an otherwise finished process alive.
  process.channel?.unref();
}
