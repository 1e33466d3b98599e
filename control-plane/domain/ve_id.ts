/** PURE: the spellings of a VE's id. */

/** `ve-x`, as it stands in host names, and `ve_x` are the same, in whatever case. Anything else is as it was. */
export function canonicalVeId(text: string): string {
  const lower = text.toLowerCase();
  return /^ve[-_]/.test(lower) ? `ve_${lower.slice(3)}` : text;
}
