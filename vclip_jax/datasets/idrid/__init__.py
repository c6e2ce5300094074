"""IDRiD: 516 fundus photographs graded for diabetic retinopathy and macular oedema (India)."""
