/** The checkout page's entry. */

import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { makeQueryClient } from "../shared/calls.ts";
import { firstLanguage, LanguageProvider } from "../shared/i18n/context.tsx";
import { localStore, sessionStore } from "../shared/stores.ts";
import "../shared/base.css";
import { App } from "./app.tsx";
import "./checkout.css";
import { land } from "./landing.ts";
import { makeMemory } from "./memory.ts";

const memory = makeMemory(localStore, sessionStore, Date.now);
memory.clean();
// Outside of React: the address is read once, and holds no secret afterwards.
const language = firstLanguage();
const landing = land(window, memory);

// A second secret for the page that is open changes only the fragment, which loads nothing.
window.addEventListener("hashchange", () => window.location.reload());

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <QueryClientProvider client={makeQueryClient()}>
      <LanguageProvider first={language}>
        <App landing={landing} memory={memory} />
      </LanguageProvider>
    </QueryClientProvider>
  </StrictMode>,
);
