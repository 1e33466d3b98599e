import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

// One page for each entry. The control plane serves `dist/` below /console/ and the pages where it wants them, with a policy
// that allows neither inline scripts nor inline styles: whatever would be inlined is switched off here.
export default defineConfig({
  root: path("."),
  base: "/console/",
  plugins: [react()],
  resolve: {
    // The server validates. The rules' schema is most of what the generated code would bring, and is read by nobody here.
    alias: [
      {
        find: "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js",
        replacement: path("src/shared/validate_stub.ts"),
      },
    ],
  },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // WeChat's browser is Chromium on Android and the system's WebKit on iPhones.
    target: ["chrome88", "safari15", "firefox90"],
    rolldownOptions: { input: { checkout: path("checkout.html") } },
  },
});
