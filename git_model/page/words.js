// Words are buttons within a piece of HTML: mark the one that is clicked, tell Python, and scroll to the
// image, which on a phone may be far above.
element.ariaLive = 'polite';
element.addEventListener('click', (event) => {
  const word = event.target.closest('button[data-word]');
  if (!word) return;
  const deselect = word.ariaPressed === 'true';
  document.querySelectorAll('button[data-word]').forEach((button) => button.ariaPressed = 'false');
  word.ariaPressed = String(!deselect);
  trigger('select', { reply: Number(word.dataset.reply), word: Number(word.dataset.word), deselect });
  document.getElementById('image').scrollIntoView({ block: 'nearest' });
});
