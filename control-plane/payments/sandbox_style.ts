/** PURE: how the sandbox's page looks. Striped like a building site, so that nobody takes it for the real thing. */

export const SANDBOX_STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --text: #1b1c1e; --quiet: #55585e; --line: #85888d; --accent: #1f5fbf; --on-accent: #ffffff;
  --warn: #ffd84d; --warn-dark: #f5c400; --on-warn: #221c00;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #141517; --card: #1f2124; --text: #ececea; --quiet: #b0b3b8; --line: #777b82; --accent: #8ab6ff; --on-accent: #0b1a30; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "PingFang SC", "Microsoft YaHei", sans-serif; }
.test { background: repeating-linear-gradient(-45deg, var(--warn) 0 1.25rem, var(--warn-dark) 1.25rem 2.5rem); color: var(--on-warn); padding: 1rem; text-align: center; }
.test p { margin: 0 auto; max-width: 36rem; background: var(--warn); border-radius: .5rem; padding: .25rem .75rem .5rem; font-weight: 600; }
.test strong { display: block; font-size: clamp(2.5rem, 12vw, 4.5rem); line-height: 1.1; letter-spacing: .12em; }
main { max-width: 36rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
.amount { font-size: 2.25rem; font-weight: 700; line-height: 1.2; margin: .5rem 0 0; font-variant-numeric: tabular-nums; }
.quiet { color: var(--quiet); margin: .25rem 0 0; overflow-wrap: anywhere; }
.state { border-left: .3rem solid var(--accent); background: var(--card); padding: .75rem 1rem; margin: 1.5rem 0 0; font-weight: 600; }
.state + .state { margin-top: .5rem; }
fieldset { border: 1px solid var(--line); border-radius: .6rem; margin: 1.5rem 0 0; padding: .5rem 1rem .75rem; background: var(--card); }
legend { float: left; width: 100%; padding: .35rem 0; font-weight: 600; }
fieldset label { clear: both; display: flex; gap: .6rem; align-items: center; min-height: 2.75rem; }
input { accent-color: var(--accent); width: 1.15rem; height: 1.15rem; flex: none; margin: 0; }
.choices { display: grid; gap: .6rem; list-style: none; margin: 0; padding: 0; }
button { width: 100%; min-height: 3.25rem; padding: .6rem 1rem; text-align: left; font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line); border-radius: .6rem; cursor: pointer; }
button strong, button span { display: block; }
button span { color: var(--quiet); font-size: .9rem; }
button:hover { border-color: var(--accent); }
button.first { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
button.first span { color: inherit; }
a { color: var(--accent); }
.back { display: inline-block; margin-top: 1.5rem; padding: .6rem 0; font-weight: 600; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
@media (forced-colors: active) { button { border: 2px solid; } }
`;
