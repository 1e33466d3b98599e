// Loaded before anything else (`node --import`). Plain JavaScript, so that an old Node can say why it will not do.
const WANTED_MAJOR = 26;
const major = Number(process.versions.node.split(".")[0]);
if (!(major >= WANTED_MAJOR)) {
  console.error(
    `TokenBill needs Node ${WANTED_MAJOR} and this is ${process.versions.node}. ` +
      "Run `npm ci` (it brings the right Node along) and start with npm: `npm start`, `npm test`.",
  );
  process.exit(78);
}
