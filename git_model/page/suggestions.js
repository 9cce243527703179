// A click on a question asks it, as if it had been typed.
element.addEventListener('click', (event) => {
  const suggestion = event.target.closest('button');
  if (!suggestion) return;
  const box = document.querySelector('#question :is(textarea, input)');
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), 'value').set.call(box, suggestion.textContent);
  box.dispatchEvent(new Event('input', { bubbles: true }));
  setTimeout(() => document.querySelector('#question button').click());
});
