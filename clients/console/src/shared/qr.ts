/** PURE: a QR code as one SVG path. */

import { encode } from "uqr";

/** The quiet zone that readers need. */
const BORDER_MODULES = 4;

export interface QrPath {
  /** Width and height in modules, with the quiet zone. */
  readonly size: number;
  /** Of the dark modules: one rectangle for each run of them in a row. */
  readonly path: string;
}

/** @throws if the text is too long for a QR code, about 2,300 bytes */
export function qrPath(text: string): QrPath {
  const { data, size } = encode(text, { ecc: "M", border: BORDER_MODULES });
  let path = "";
  data.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      if (row[x] !== true) continue;
      let end = x;
      while (row[end] === true) end++;
      path += `M${x} ${y}h${end - x}v1h-${end - x}z`;
      x = end;
    }
  });
  return { size, path };
}
