/** The browser's stores. Where they are closed (private windows, settings), memory takes their place for as long as the page lives. */

export interface Store {
  get(key: string): string | null;
  set(key: string, value: string): void;
  remove(key: string): void;
  keys(): readonly string[];
}

export function memoryStore(): Store {
  const values = new Map<string, string>();
  return {
    get: (key) => values.get(key) ?? null,
    set: (key, value) => void values.set(key, value),
    remove: (key) => void values.delete(key),
    keys: () => [...values.keys()],
  };
}

function browserStore(open: () => Storage): Store {
  const memory = memoryStore();
  let storage: Storage | null = null;
  try {
    storage = open();
  } catch {
    // Reading the property throws where the store is closed.
  }
  if (storage === null) return memory;
  const kept = storage;
  return {
    get: (key) => kept.getItem(key) ?? memory.get(key),
    set: (key, value) => {
      try {
        kept.setItem(key, value);
        memory.remove(key);
      } catch {
        memory.set(key, value); // It is full, or takes nothing.
      }
    },
    remove: (key) => {
      kept.removeItem(key);
      memory.remove(key);
    },
    keys: () => [...Array.from({ length: kept.length }, (_, i) => kept.key(i) ?? ""), ...memory.keys()],
  };
}

const isBrowser = typeof window !== "undefined";
export const localStore: Store = isBrowser ? browserStore(() => window.localStorage) : memoryStore();
export const sessionStore: Store = isBrowser ? browserStore(() => window.sessionStorage) : memoryStore();
